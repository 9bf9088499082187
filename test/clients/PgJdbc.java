import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

public class PgJdbc {
  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:postgresql://" + System.getenv("HOST") + ":" + System.getenv("PORT")
        + "/postgres?user=postgres&sslmode=disable&" + System.getenv("SETTINGS");
    System.out.println("connecting");
    try (Connection connection = DriverManager.getConnection(url)) {
      System.out.println("connected");
      BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
      for (String sql; (sql = input.readLine()) != null;) {
        connection.createStatement().execute(sql);
        System.out.println("answer");
      }
    } catch (SQLException error) {
      System.out.println("error: " + error.getMessage().replaceAll("\\s+", " "));
      System.exit(1);
    }
  }
}
